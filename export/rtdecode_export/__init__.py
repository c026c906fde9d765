"""From a PyTorch module to a bundle: ONNX, parity on real windows, golden windows. Needs the ``train`` extra."""
