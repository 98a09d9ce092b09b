"""The specification of the score as a program: dicts and float64, a module an operator, beside `docs/model.md`."""
