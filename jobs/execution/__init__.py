"""Run splits: on Ray, in one worker process, or in this process."""
