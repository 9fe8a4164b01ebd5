"""Speed beside a peer, and the experiments of docs/findings.md."""
