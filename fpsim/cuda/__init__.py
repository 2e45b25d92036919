"""The CUDA machine. Its files import torch and are themselves imported on first use.

``dispatch`` chooses: Triton's kernels (``triton_*``), or the twin (``twin_*``), which computes with plain torch
operations on tensors of any device. Both have the bits of the CPU machine. ``device`` says what a device lacks,
``operands`` makes tensors of what is given.

========================  ==============================================================================================
array functions           triton_arrays, of triton_kernels;  twin_arrays, twin_blocks
programs                  triton_machine, triton_watch;  twin_machine, twin_functions
printed programs          triton_print, triton_print_stages, triton_stages: texts;  triton_program_parts: what they call
sums and products         triton_matmul, of triton_matmul_kernels;  twin_contract, twin_contract_core: tensor cores;
                          twin_contract_dispatch chooses
one rounded operation     triton_elements, triton_wide, triton_single (binary32 registers; triton_single_tiers: when);
                          twin_operations, twin_magnitudes, twin_rounding
random bits, formats      triton_random, twin_words;  triton_table
Triton itself             triton_launch, triton_cache, triton_interpreter; triton_ptx, triton_matmul_ptx: compiled texts
========================  ==============================================================================================
"""
