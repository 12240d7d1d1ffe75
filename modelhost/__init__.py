"""The process-wide model: load it once, render prompts, generate.

A plain library: it imports no Django. Its public surface is light (`types`, `errors`, `host`,
`ticket`, `wakeups`); torch and transformers are imported only when a model is loaded, so that a
web process can import this package at no cost. `engine` is public as a type.
"""
