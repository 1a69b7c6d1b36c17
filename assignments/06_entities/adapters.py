"""Hand in code that you have laid out as you like: put this file, your .py files and,
if you want, your notebook into one folder, and name your functions here. It runs after
the notebook's graded cells. Names that you don't mention stay as they are.
"""

# from my_code import my_piece_labels as piece_labels
# from my_code import my_word_scores as word_scores
# from my_code import my_faults as faults
# from my_code import my_repair as repair
# from my_code import my_mentions as mentions
# from my_code import my_viterbi as viterbi
# from my_code import my_entity_f1 as entity_f1
# from my_code import my_no_skipping as no_skipping
# from my_code import my_each_word_once as each_word_once
# from my_code import my_without_outside as without_outside
# from my_code import my_with_letters as with_letters
# from my_code import my_which_scorer as which_scorer
# from my_code import my_mask as mask
# from my_code import my_greedy_rows as greedy_rows
# from my_code import my_sample_episode as sample_episode
