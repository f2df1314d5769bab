"""What tests and benchmarks of programs that use wirespeed need."""
