"""Write texts after several prompts at once."""
