"""Whether what a model is asked, and what it answers, has moved since an earlier time."""
