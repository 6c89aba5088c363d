// The other half's library, byte for byte, inside the program: it is one file to install, and the halves are of one build.
    .section .rodata
    .balign 16
    .globl lockstep_cuda_image
lockstep_cuda_image:
    .incbin LOCKSTEP_CUDA_IMAGE
    .globl lockstep_cuda_image_end
lockstep_cuda_image_end:
    .section .note.GNU-stack, "", %progbits
