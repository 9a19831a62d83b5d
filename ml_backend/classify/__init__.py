"""`POST /v1/classify`: images of programs, answered by the same live models as Label Studio's."""
