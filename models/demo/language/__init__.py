"""What the demo model is taught: words, sentences, questions and texts, drawn without end.

`lexicon` has the words, `phrases` and `grammar` make sentences of them in four languages,
`questions` and `styles` tasks; `data` draws exchanges of all tasks, `judge` and `scores` say how
good answers are. Imports the standard library only.
"""
