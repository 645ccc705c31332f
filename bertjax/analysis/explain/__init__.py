"""Why the model answers as it does: attributions, attention flow, changed inputs."""
