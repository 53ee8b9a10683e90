"""TotalSegmentator (Wasserthal et al. 2023, Radiology: AI 5:e230024): import of the models of its tasks."""
