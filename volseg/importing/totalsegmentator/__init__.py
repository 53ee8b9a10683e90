"""TotalSegmentator (Wasserthal et al. 2023, Radiology: AI 5:e230024): what its tasks are made of."""
