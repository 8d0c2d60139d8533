"""One interface to every predictor of partitions: a plane and a qindex in, distributions out."""
