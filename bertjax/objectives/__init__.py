"""What the model learns from: masking on the device, and losses as (sum, count)."""
