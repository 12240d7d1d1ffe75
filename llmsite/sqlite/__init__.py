"""Django's SQLite backend with connections that are kept: `ENGINE = "llmsite.sqlite"`."""
