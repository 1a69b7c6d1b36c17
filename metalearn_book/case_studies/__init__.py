"From a few labelled texts to a classifier or a tagger."
