"""What routing does to the demo model's answers: `make quality` asks the real server and draws it.

`rows` says which policies are compared, `questions` asks them of a server, `measure` turns the
answers into numbers, `usage` looks at which experts serve what, `plots` and `report` show it all.
`python -m loadtests.quality` runs them; what it found last is in README.md and results.json here.
"""
