"""Speculative decoding on CPU samples with uninitialized temperatures, top_k and top_p.

`expand_batch_to_tokens` repeats each request's value for each of its drafts. On CPU its kernel is
`_expand_kernel_impl` (vllm/utils/cpu_triton_utils.py), which calls `_ensure_int64` on the output as
on the input: the values are cut to integers, and written to a copy of the output that is thrown
away. With drafts, text of temperature 1 is drawn from another distribution than without.
"""

import torch
from vllm.platforms import current_platform
from vllm.v1.sample.rejection_sampler import expand_batch_to_tokens

current_platform.import_kernels()
current_platform.register_triton_kernel_overrides()
temperature = torch.tensor([0.5, 2.0])
expected = torch.tensor([0.5, 0.5, 2.0])
torch.use_deterministic_algorithms(True)  # new memory is then filled with NaN
found = expand_batch_to_tokens(temperature, torch.tensor([2, 3]), num_tokens=3)
print(f"expected {expected.tolist()}, found {found.tolist()}")
assert not torch.equal(expected, found), "mended"
