"""Results: the record of one run, the store that keeps records, the table made from them."""
