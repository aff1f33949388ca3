"""Load PEFT adapters: what was trained beside a base model is merged into it."""
