"""The formats that a run can be exported to, and what each is for."""

FORMATS = {
    "csv": "parts as CSV, for TOPCAT and spreadsheets",
    "votable": "parts as VOTable with units and outlines, for TOPCAT and Aladin",
    "fits": "parts as FITS table",
    "parquet": "parts as Parquet",
    "regions": "parts as DS9 regions, on the sky and in pixels, for DS9 and Aladin",
    "coco": "parts as COCO JSON, for tools of object detection",
    "hloc": "features as HDF5, for hloc",
    "embedding-atlas": "images as Parquet, for Embedding Atlas",
    "smh": "bags of words and structures as text, for the Sampled-MinHashing programs",
    "samp": "parts sent to the programs that are open: TOPCAT, Aladin, DS9",
}
