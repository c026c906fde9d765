"""The published encoders, one file each, and the closed-form baselines that they are measured against."""
