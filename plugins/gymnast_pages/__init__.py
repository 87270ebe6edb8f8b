"""What pages share: charts, templates, wording, video, and the server that shows them on this machine."""
