/** What the look of an I/O virtual address suggests. The windows are Linux's own habits on arm64. */

/** Where Linux puts MSI doorbells: MSI_IOVA_BASE and MSI_IOVA_LENGTH of its SMMU drivers. */
const MSI_WINDOW = { first: 0x0800_0000n, last: 0x080f_ffffn };
const GIB = 1n << 30n;

const isMsi = (address: bigint): boolean => address >= MSI_WINDOW.first && address <= MSI_WINDOW.last;

/** Hints for an IPA that stage 2 did not translate. */
export function ipaHints(ipa: bigint): string[] {
  if (!isMsi(ipa)) return [];
  return [
    'The IPA lies in 0x8000000..0x80fffff, where the host maps the doorbells of MSIs, and only once VFIO has set the ' +
      'interrupts up: check that the guest writes exactly the MSI address that the VMM gave to the device.',
  ];
}

/** Hints for an address that stage 1 did not translate, the likeliest first. */
export function addressHints(iova: bigint): string[] {
  if (isMsi(iova))
    return [
      'The address lies in 0x8000000..0x80fffff, where Linux places MSI doorbells. Behind an accelerated vSMMU the ' +
        "guest's stage 1 must map this window one to one: check that the firmware describes it to the guest as " +
        'reserved memory (RMR node of the IORT), and that the interrupt was not freed too early.',
    ];
  if (iova < 0x1000n)
    return ['The address is next to zero: a descriptor or base address that was never filled in.'];
  if (iova >> 47n === 0x1_ffffn)
    return [
      'The upper bits are all ones, as in a kernel virtual address: a driver gave the device a pointer instead of ' +
        'the address that dma_map_*() or dma_alloc_*() returned.',
    ];
  if (iova >> 48n !== 0n)
    return [
      'The address has more than 48 bits: it is not one that Linux hands out. Suspect a corrupted descriptor, or a ' +
        'byte order or truncation bug in what the device was told.',
    ];
  if (iova >= 3n * GIB && iova < 4n * GIB)
    return [
      'Linux hands out DMA addresses downwards from 4 GiB, so this one was probably valid before: look for DMA ' +
        'that goes on after dma_unmap_*() or dma_free_*(), or that runs past the end of its buffer.',
    ];
  return [];
}
