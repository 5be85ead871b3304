"""Detection of very many images: a frozen plan, parts that are computed in any order, a count at the end."""
