"""The search of a program's config: space, study, trials, report."""
