"""Sentences of chapters that no cell of theirs checks: what they say of the stored
numbers and of the stored figures."""

import json
import re
from pathlib import Path

import torch

from metalearn_book.foundations.measuring import Evaluation

ROOT = Path(__file__).resolve().parent.parent


def numbers(chapter: str) -> dict:
    stored = (ROOT / "results" / f"{chapter}.json").read_text(encoding="utf-8")
    return json.loads(stored)["book"]["numbers"]


def outputs_of(chapter: str) -> str:
    "The stored outputs of a chapter, as plain text."
    path = ROOT / "nbs" / f"{chapter}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [o for c in cells for o in c.get("outputs", []) if "data" in o]
    return "\n".join("".join(o["data"].get("text/plain", "")) for o in found)


def test_what_the_prototypes_chapter_says_about_episodes():
    stored = numbers("metric/10_prototypes")
    frozen, centred = stored["text_minus_frozen"], stored["text_minus_centred"]
    at_one = lambda table, method: {
        n: table[f"{method}, {n}, 1"] for n in ("clinc150", "banking77", "fewrel")
    }
    above = lambda cell: cell["mean"] > cell["ci95"]
    weights, maps = "feature weights, many-way", ("5-way", "many-way")
    assert above(at_one(frozen, "centred on training classes")["banking77"])
    assert above(at_one(frozen, weights)["banking77"])
    behind = at_one(centred, weights)["banking77"]
    assert behind["mean"] < -behind["ci95"]  # "and not the centred ones"
    for way in maps:
        gain = at_one(centred, f"residual map, {way}")
        assert gain["clinc150"]["mean"] < 0.005 and above(gain["fewrel"])
        assert max(gain, key=lambda n: gain[n]["mean"]) == "fewrel"
        assert gain["fewrel"]["mean"] > 0.02  # several points
        for k, published in ((1, 0.7452), (5, 0.8840)):
            assert (
                stored["text"][f"residual map, {way}, fewrel, {k}"]["mean"] < published
            )


def test_what_the_prototypes_chapter_says_about_whole_query_sets():
    stored = numbers("metric/10_prototypes")
    gap = stored["transductive_minus_inductive"]
    for n in ("clinc150", "banking77"):
        trained = [
            cell["mean"]
            for key, cell in stored["text_minus_frozen"].items()
            if key.endswith(f"{n}, 1")
        ]
        soft, balanced = (
            {
                how: gap[f"{n}, {rule}, {how}"]["mean"]
                for how in ("balanced", "Dirichlet")
            }
            for rule in ("soft k-means", "balanced assignment")
        )
        assert min(soft["balanced"], balanced["balanced"]) > max(trained)
        assert abs(soft["Dirichlet"]) < 0.02
        assert -balanced["Dirichlet"] > 1.5 * balanced["balanced"]  # far more


def test_what_the_slider_of_the_penalty_says():
    path = ROOT / "nbs/metric/40_closed_form.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = "".join(
        "".join(output.get("data", {}).get("text/html", []))
        for cell in cells
        for output in cell.get("outputs", [])
    )
    note = r"([\d.e+]+) \| right: (\d+)%, (\d+)%, (\d+)% \| 5-shot LOO error ([\d.]+)"
    rows = sorted({tuple(map(float, m)) for m in re.findall(note, shown)})
    assert len(rows) > 20
    first, last = rows[0], rows[-1]
    assert all(a > b for a, b in zip(first[1:4], last[1:4]))  # accuracy falls
    assert last[4] > first[4]  # and the leave-one-out error rises
    lasts = [max(lam for lam, *v in rows if v[i] > 95) for i in (1, 2)]
    assert lasts[1] > lasts[0]  # with 20 shots for longer than with 5


def test_what_the_questions_on_training_on_other_sets_say():
    met = numbers("benchmarks/text_classification")["episodes"]
    gain = lambda n, k: met[f"{n}, own"][k]["mean"] - met[f"{n}, frozen"][k]["mean"]
    for n in ("clinc150", "banking77", "hwu64"):  # own classes help most at one shot
        assert gain(n, "1-shot") > gain(n, "5-shot")


def test_what_the_low_rank_chapter_says_about_intents():
    stored = numbers("language_models/40_low_rank")["intents"]
    told = lambda d: abs(d["mean"]) > d["ci95"]
    clinc, banking = (stored["compared"][bed] for bed in ("CLINC150", "Banking77"))
    every = {("CLINC150", k): d for k, d in clinc.items()}
    every |= {("Banking77", k): d for k, d in banking.items()}
    assert [key for key, d in every.items() if told(d)] == [("CLINC150", "top")]
    assert len(every) == 8  # "one difference of the eight"
    lowest = stored["accuracy"]["Banking77"]
    assert min(lowest, key=lambda k: lowest[k]["mean"]) == "LoRA, meta-trained"
    assert clinc["top"]["ci95"] < clinc["top"]["mean"] < 1.5 * clinc["top"]["ci95"]
    for key in ("lora", "between"):  # "by points and not by tenths"
        assert banking[key]["mean"] < -0.02
    assert clinc["lora"]["n"] == banking["between"]["n"] == 3  # seeds


def test_what_the_low_rank_chapter_says_about_its_searches():
    text = outputs_of("language_models/40_low_rank")
    [(lora, lora_ci), (top, top_ci)] = [
        (float(mean.replace("−", "-")), float(ci))
        for kind in ("LoRA", "top layer")
        for mean, ci in re.findall(
            rf"^{kind} +0\.0+3 .* ± .*  (−?[\d.]+) ± ([\d.]+)$", text, re.M
        )
    ]
    assert abs(lora) < lora_ci and top < -top_ci
    assert "Settings that their interval puts below the chosen one: LoRA at" in text
    first_order = re.search(r"^prefix +([\d.e-]+) +([\d.e-]+)$", text, re.M)
    # the largest of three directions
    assert float(first_order[1]) < 1e-6 and 4e-3 < float(first_order[2]) < 6e-3


def test_what_the_pretrained_chapter_says_about_ends():
    stored = numbers("language_models/15_pretrained")
    ends = stored["end_nats"]
    model, other = (f"smollm2, `<|{t}|>`" for t in ("im_end", "endoftext"))
    small = "small GPT, `<end>`"
    line = ends["headline"]
    assert abs(line[other] / line[model] - 1) < 0.1  # "about as much"
    assert 0.15 < line[small] / line[other] < 0.25  # "a fifth of that"
    assert ends["abstract"][model] > 1.2 * ends["abstract"][other]
    for cut in ("dialogue", "abstract"):
        assert all(ends[cut][who] > line[who] for who in (model, other, small))
    text = outputs_of("language_models/15_pretrained")
    number = r"(−?[\d.]+) ± ([\d.]+)"
    found = re.search(f"lead goes from {number} to {number} bits", text).groups()
    alone, wide, with_end, as_wide = (float(v.replace("−", "-")) for v in found)
    assert alone > wide and with_end < as_wide  # ahead, and then no longer
    by = stored["bits_per_byte"]
    for how, lead in (("the text alone", alone), ("with its end", with_end)):
        small_one, large = (
            by[how][f"{who}, headline"]["mean"] for who in ("small GPT", "smollm2")
        )
        assert abs(small_one - large - lead) < 0.01


def test_what_the_pretrained_chapter_says_about_the_correction():
    stored = numbers("language_models/15_pretrained")["zero_shot"]
    plain = stored.pop("as it is")["mean"]
    assert len(stored) == 4 and all(r["mean"] < plain for r in stored.values())
    text = outputs_of("language_models/15_pretrained")
    borders = re.findall(r"^by [^ ]+( three)? +(−?[\d.]+) ", text, re.M)
    assert len(borders) == 4 and all(b.startswith("−") for _, b in borders)
    assert float(re.search(r"log-odds lie above (\S+);", text)[1]) > 0


def test_what_the_pretraining_chapter_says_about_fine_tuning():
    stored = numbers("language_models/12_pretraining")
    change, tried = stored["change"], stored["rates of fine-tuning"]
    total = {r["rate"]: sum(v for k, v in r.items() if k != "rate") for r in tried}
    assert min(total, key=total.get) == max(total)  # the largest of three is chosen
    chosen = next(r for r in tried if r["rate"] == max(total))
    assert chosen["dialogue"] < tried[0]["dialogue"] - 0.05  # its own services gain
    other = change["dialogue, replay False"]["dialogue"]
    assert other["mean"] > other["ci95"]  # other services get worse
    for name, row in change.items():  # the other kinds, and all with old texts
        for kind, cell in row.items():
            if kind != name.split(",")[0]:
                assert cell["mean"] > cell["ci95"], (name, kind)
    text = outputs_of("language_models/12_pretraining")
    own = re.search(r"changes bits per byte by .* (−[\d.]+) ± ([\d.]+) \(abstr", text)
    assert float(own[1].replace("−", "-")) < -2 * float(own[2])  # clearly
    after = stored["obeyed after"]
    assert all(len(by) == 2 and own not in by for own, by in after.items())
    assert min(v for by in after.values() for v in by.values()) >= 0.9  # "a few texts"


def test_what_the_entities_chapter_says_about_the_detector():
    "Its lead on test episodes: apart from zero with one or two mentions only."
    cells = numbers("benchmarks/ner")["detector"]
    own, other = "decomposed, MAML detector", "decomposed"
    for k, sure in ((1, True), (5, False)):
        domains = sorted({key.split("/")[0] for key in cells})
        gains = torch.tensor(
            [
                a - b
                for d in domains
                for a, b in zip(
                    cells[f"{d}/{k}/{own}"]["f1"], cells[f"{d}/{k}/{other}"]["f1"]
                )
            ]
        )
        lead = Evaluation(gains, 0)
        assert len(gains) >= 100 and (lead.mean > lead.ci95) is sure
        assert 0 < lead.mean < 0.02


def test_what_the_chapter_on_adapters_says_about_three_seeds():
    leads = numbers("benchmarks/low_rank_services")["leads"]["24"]
    ahead = {
        (what, k)
        for what in ("LoRA, rank 4", "prompt", "all weights")
        for k, v in leads[f"{what}, maml | {what}, joint"].items()
        if v["mean"] > v["ci95"]
    }
    assert ahead == {("all weights", "16")}
