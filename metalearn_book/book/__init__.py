"What the chapters share as a book: scale, results, tables, figures, growing classes."
