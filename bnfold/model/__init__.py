"""The ONNX file: opened without its weights, checked, edited, written back byte for byte.

store     opens a model, hands out weights on demand
validate  is it well-formed?
view      who produces, who consumes
edits     what is to change, as plain data
write     the model with the changes, atomically in place
outline   the skeleton: a model without its big tensor payloads
wire      the protobuf encoding, on which outline and write both stand
dtypes    what the numbers in a tensor mean
"""
