"""Analysis of single queries: scenarios, suggested scenarios, examples, saliency maps, and the position of a photo."""
