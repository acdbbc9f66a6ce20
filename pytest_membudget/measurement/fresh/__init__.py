"""Fresh interpreters and commands: start, measure, end."""
