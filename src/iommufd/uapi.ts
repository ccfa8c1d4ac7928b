/** The uAPI of iommufd and the VFIO cdev under one name. */

export * from './uapi/errno.ts';
export * from './uapi/hw-info.ts';
export * from './uapi/iommufd.ts';
export * from './uapi/page-fault.ts';
export * from './uapi/vevent.ts';
export * from './uapi/vfio.ts';
