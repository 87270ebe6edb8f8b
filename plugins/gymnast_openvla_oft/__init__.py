"""OpenVLA-OFT: a vision-language-action policy with parallel decoding of discrete action chunks."""
