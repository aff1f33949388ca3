"""The output folder as the driver sees it: what is done, and who may write."""
