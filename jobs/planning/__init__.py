"""From a job to what can run: files, task, model, columns, fingerprint. No model is loaded."""
