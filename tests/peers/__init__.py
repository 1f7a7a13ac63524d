"""npconv's times beside those of torch, onnxruntime and ncnn.

``pip install ".[peers]" && pytest tests/peers --benchmark-json PEERS.json`` measures, for about seven minutes, and
``python tests/peers/report.py PEERS.json README.md`` makes tables of it. With ``--peers-drawn N`` there are layers that
a seed has drawn, too (`peers.drawn`). A plain ``pytest`` leaves this folder out.
"""
