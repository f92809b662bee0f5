"""Where the time of a step goes, by the names of operations and of kernels."""

import pytest
import torch

from unmask.bench.profile import KERNELS, OPERATIONS, kind_of_kernel, time_by_kind

NATIVE = "void at::native::"


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        # As an H200 names them, in a step of ViT-B/16, with and without torch.compile.
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x64", "attention"),
        ("void cudnn::fusion::compute_dot_do_o<true>(void const*, void const*, void*)", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_bias_TNT", "matrix products"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64>(Params)", "matrix products"),
        (
            NATIVE + "vectorized_elementwise_kernel<8, at::native::GeluBackwardCUDAKernelImpl",
            "activation function",
        ),
        (NATIVE + "(anonymous namespace)::GammaBetaBackwardCUDAKernelTemplate<float, float>", "norms"),
        (NATIVE + "(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", "norms"),
        (
            NATIVE + "multi_tensor_apply_kernel<at::native::FusedOptimizerTensorListMetadata<4>>",
            "optimizer",
        ),
        (NATIVE + "(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>", "copies"),
        (NATIVE + "vectorized_elementwise_kernel<8, at::native::bfloat16_copy_kernel_cuda", "copies"),
        ("Memset (Device)", "copies"),
        ("triton_poi_fused_gelu_3", "activation function"),
        ("triton_per_fused__to_copy_add_native_layer_norm_5", "norms"),
        (NATIVE + "vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", "other"),
        (NATIVE + "reduce_kernel<128, 4, at::native::ReduceOp<c10::BFloat16, sum_functor>>", "other"),
    ],
)
def test_kinds_of_kernels(kernel, kind):
    assert kind_of_kernel(kernel) == kind


def test_both_devices_have_the_same_kinds():
    assert set(KERNELS) == set(OPERATIONS)


def test_shares_sum_to_one():
    x = torch.ones(64, 64)
    shares = time_by_kind(lambda: (x @ x).softmax(-1), torch.device("cpu"))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["matrix products"] > 0
    assert shares["attention"] > 0  # the softmax
