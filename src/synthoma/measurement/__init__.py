"""What a radiologist would write down of every lesion: size, HU, place, and what became of it over dates."""
