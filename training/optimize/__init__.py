"""Files of packages for other engines: conversion, quantisation, and the measurement that lets them serve."""
