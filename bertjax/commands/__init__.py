"""The commands of `bertjax`, one file each: SUMMARY, add_arguments(parser), run(options)."""
