"""All analyses of a model as one page: what is measured, figures, the page itself."""
