// The library of the other half, embedded in the program: there is only one file to install, and both halves are from one build.
    .section .rodata
    .balign 16
    .globl lockstep_cuda_image
lockstep_cuda_image:
    .incbin LOCKSTEP_CUDA_IMAGE
    .globl lockstep_cuda_image_end
lockstep_cuda_image_end:
    .section .note.GNU-stack, "", %progbits
