"""How good the scores are: each part of docs/quality.md is a module that makes its tables (`__main__.PARTS`)."""
