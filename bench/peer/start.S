// Entry of the bare-metal program: a stack below the program's data, main, and power off when it returns.
    .section .text.entry, "ax"
    .global entry
entry:
    ldr x9, =0x47f00000
    mov sp, x9
    bl main
    ldr x0, =0x84000008         // PSCI: SYSTEM_OFF
    hvc #0
halt:
    wfi
    b halt
