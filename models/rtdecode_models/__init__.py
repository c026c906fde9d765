"""PyTorch encoders for rtdecode, and their training. One file per published system. Needs the ``train`` extra."""
