"""What turns an image into keypoints and descriptors."""
