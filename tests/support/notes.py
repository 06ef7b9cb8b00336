"""The published notes of the formats page: a checkpoint by a log, and a witness's cosignature over it."""

LOG_SEED = bytes([7]) * 32
LOG_NAME = "audit.example.com/t/7f3a9c/1"
LOG_VKEY = "audit.example.com/t/7f3a9c/1+4e221d72+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
WITNESS_SEED = bytes([9]) * 32
WITNESS_NAME = "witness.example.net/w1"
WITNESS_VKEY = "witness.example.net/w1+63fbd762+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY"
COSIGNED_AT_SECONDS = 1790000000

TEXT = "audit.example.com/t/7f3a9c/1\n5\ntnSPbtepnefahP2X4aO6xvq4mZ9KQ2lcq5Uoot5DEUc=\n"
LOG_LINE = (
    "— audit.example.com/t/7f3a9c/1 "
    "TiIdclHDgOYaowyYKMEB9NSWrR3hHnhFaHZpxXIOPCqL83US45mHijIGsukrbuxNd3fxcj5FpQpLCobS81Us9DbpAg0=\n"
)
WITNESS_LINE = (
    "— witness.example.net/w1 "
    "Y/vXYgAAAABqsTuA15qQs/Pt/ftfxdgXyA2KC8/d1XQoqbElMco11uNNkVXAqu+xanuBXBdGFInQ0/IDQWirD6I2hMnB3FBHs8j4Ag==\n"
)
SIGNED = f"{TEXT}\n{LOG_LINE}"
COSIGNED = SIGNED + WITNESS_LINE
