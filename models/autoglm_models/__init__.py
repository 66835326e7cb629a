"""How ONNX Runtime and the default model bundles come to be on a machine. Build time only: the daemon never runs this.

Reading order: cli (the commands), lock and fetch (packages in), environment (the private build tools), bundles (what
is built when), recipes/ (how each bundle is made and judged), bundle (the format the daemon reads), system (apt).
Everything outside recipes/ uses the standard library alone.
"""
